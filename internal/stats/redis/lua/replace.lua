-- Parts in place of others. KEYS: parts. ARGV[1]: ms that they live; 2: how many are replaced; each of
-- them with what it must be, or nothing for whatever it is; then the new ones with what they are. The
-- answer is 0 if one is not as it must be, and nothing has changed.
local last = 2 + 2 * tonumber(ARGV[2])
for i = 3, last, 2 do
  if ARGV[i + 1] ~= '' and redis.call('HGET', KEYS[1], ARGV[i]) ~= ARGV[i + 1] then
    return 0
  end
end
for i = 3, last, 2 do
  redis.call('HDEL', KEYS[1], ARGV[i])
end
for i = last + 1, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
