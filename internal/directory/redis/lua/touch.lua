-- Channels are active for a while. KEYS: their names, and until when, in ms. ARGV[3]: how many
-- there may be; then until and name of each.
for i = 4, #ARGV, 2 do
  call('ZADD', KEYS[2], 'GT', ARGV[i], ARGV[i + 1])
  call('ZADD', KEYS[1], 0, ARGV[i + 1])
end
local function forget(names)
  if #names > 0 then
    call('ZREM', KEYS[1], spread(names))
    call('ZREM', KEYS[2], spread(names))
  end
end
forget(call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1000))
local beyond = call('ZCARD', KEYS[2]) - tonumber(ARGV[3])
if beyond > 0 then
  if beyond > 1000 then
    beyond = 1000
  end
  forget(call('ZRANGE', KEYS[2], 0, beyond - 1))
end
local last = call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2]
if last then
  local left = tonumber(last) - now + 60000
  call('PEXPIRE', KEYS[1], left)
  call('PEXPIRE', KEYS[2], left)
end
return 1
