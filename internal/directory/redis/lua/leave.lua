-- A node ends. KEYS and ARGV[3]: as in heartbeat.lua.
if call('ZREM', KEYS[1], ARGV[3]) == 1 then
  call('ZADD', KEYS[2], real, ARGV[3])
end
return 1
