-- The occupancy of a channel over all nodes. KEYS: counts of the channel, nodes that want to
-- know. ARGV[3]: the node that wants to know of the next change, or nothing.
if ARGV[3] ~= '' then
  call('SADD', KEYS[2], ARGV[3])
  call('PEXPIRE', KEYS[2], 600000)
end
return call('HGET', KEYS[1], 't') or string.rep('\0', 32)
