-- The position of a channel's tail, the last serial that it gave, and the time. The channel
-- is not forgotten meanwhile. KEYS: state, log. ARGV: retention.
local retention = tonumber(ARGV[1])
if not load() then
  dropLog()
end
save(retention)
return pack('>I6I6I3c8I6I3', now, tailMs, tailCounter, tailEpoch, ms, counter)
