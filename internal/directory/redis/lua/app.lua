-- The record of an app. KEYS: apps by id; the newest revision. ARGV[3]: id; 4: the revision that it
-- has, 0 if there is none; 5: what it is to be, or nothing; 6: how many apps there may be, or 0. The
-- answer is the new revision, or 0 if it has another, -1 if there are as many.
local is = call('HGET', KEYS[1], ARGV[3])
local revision = 0
if is then
  local version
  version, revision = unpack('>BI7', is)
  if version ~= 1 then
    return redis.error_reply('VERSION a record of an app has version ' .. version .. ', known is 1')
  end
end
if revision ~= tonumber(ARGV[4]) then
  return 0
elseif not is and tonumber(ARGV[6]) > 0 and call('HLEN', KEYS[1]) >= tonumber(ARGV[6]) then
  return -1
end
-- Revisions are µs, or one more than the last: none comes again if the store loses some.
local next = tonumber(call('GET', KEYS[2]) or 0) + 1
if time[1] * 1000000 + time[2] > next then
  next = time[1] * 1000000 + time[2]
end
if ARGV[5] == '' then
  call('HDEL', KEYS[1], ARGV[3])
else
  call('HSET', KEYS[1], ARGV[3], pack('>BI7', 1, next) .. ARGV[5])
end
call('SET', KEYS[2], string.format('%.0f', next))
return next
