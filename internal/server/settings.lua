-- The settings with which nodes work. KEYS[1]: hash of <setting>=<digest> to "<ms> <host>", when and
-- by whom that was said last. ARGV[1]: for how many ms it holds; 2: the host; 3: how many fields
-- the node says; 4...: these, and then those that it says no more. The answer is what others say.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local says = tonumber(ARGV[3])
for i = 4, #ARGV do
  if i < 4 + says then
    redis.call('HSET', KEYS[1], ARGV[i], string.format('%.0f ', now) .. ARGV[2])
  else
    redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
local all = redis.call('HGETALL', KEYS[1])
local others = {}
for i = 1, #all, 2 do
  local at, host = string.match(all[i + 1], '^(%d+) (.*)$')
  if not at or now - tonumber(at) > tonumber(ARGV[1]) then
    redis.call('HDEL', KEYS[1], all[i])
  else
    others[#others + 1] = all[i]
    others[#others + 1] = host
  end
end
return others
