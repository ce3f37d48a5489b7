-- Tokens are revoked. KEYS: what revocations say, by number; their numbers; these by when they
-- expire, in ms; the newest number of each target; how many each app has. ARGV[3]: how many there may be; 4:
-- of one app; then of each: app, key and target, what it says. The answer is 0 if there are too
-- many, and nothing was kept.
local TIMES = '>BI6I6I6' -- version 1, issued before, applies at, expires
local LIST, NUMBERS, EXPIRY, TARGETS, APPS = spread(KEYS)

local function forget(n)
  local said = call('HGET', LIST, n)
  if said then
    local at = 20
    local length = unpack('>I4', said, at)
    local app = sub(said, at + 4, at + 3 + length)
    local target = sub(said, at + 4 + length)
    if call('HGET', TARGETS, target) == n then
      call('HDEL', TARGETS, target)
    end
    if call('HINCRBY', APPS, app, -1) <= 0 then
      call('HDEL', APPS, app)
    end
    call('HDEL', LIST, n)
  end
  call('ZREM', EXPIRY, n)
  call('ZREM', NUMBERS, n)
end

for _, n in ipairs(call('ZRANGEBYSCORE', EXPIRY, '-inf', now)) do
  forget(n)
end

-- replaced is the number of the one that says no more than the given one.
local function replaced(target, said)
  local n = call('HGET', TARGETS, target)
  if not n then
    return nil
  end
  local _, issued, applies, expires = unpack(TIMES, said)
  local _, oldIssued, oldApplies, oldExpires = unpack(TIMES, call('HGET', LIST, n))
  if oldApplies < now then
    oldApplies = now
  end
  if issued >= oldIssued and expires >= oldExpires and applies <= oldApplies then
    return n
  end
end

local all, apps = call('HLEN', LIST), {}
for i = 5, #ARGV, 3 do
  local app = ARGV[i]
  if not replaced(ARGV[i + 1], ARGV[i + 2]) then
    all = all + 1
    apps[app] = (apps[app] or tonumber(call('HGET', APPS, app) or 0)) + 1
    if all > tonumber(ARGV[3]) or apps[app] > tonumber(ARGV[4]) then
      return 0
    end
  end
end

-- Numbers are µs, or one more than the last: none comes again if the store loses some.
local last = tonumber(call('ZRANGE', NUMBERS, -1, -1, 'WITHSCORES')[2] or 0)
if time[1] * 1000000 + time[2] > last then
  last = time[1] * 1000000 + time[2]
end
for i = 5, #ARGV, 3 do
  local app, target, said = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  last = last + 1
  local n = string.format('%.0f', last)
  local old = replaced(target, said)
  if old then
    forget(old)
  end
  call('HSET', LIST, n, said)
  call('ZADD', NUMBERS, n, n)
  call('ZADD', EXPIRY, select(4, unpack(TIMES, said)), n)
  call('HSET', TARGETS, target, n)
  call('HINCRBY', APPS, app, 1)
end
local left = tonumber(call('ZRANGE', EXPIRY, -1, -1, 'WITHSCORES')[2]) - now + 60000
for _, key in ipairs(KEYS) do
  call('PEXPIRE', key, left)
end
return 1
