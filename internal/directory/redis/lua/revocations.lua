-- Revocations in the order of recording. KEYS: what they say, by number; their numbers. ARGV[3]:
-- the number after which to begin; 4: how many. The answer is the number of the last one, or the
-- given one, and what they say, without those that have expired.
local numbers = call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[3], '+inf', 'LIMIT', 0, ARGV[4])
if #numbers == 0 then
  return {ARGV[3]}
end
local answer = {numbers[#numbers]}
for _, said in ipairs(call('HMGET', KEYS[1], spread(numbers))) do
  if said and select(4, unpack('>BI6I6I6', said)) > now then
    answer[#answer + 1] = said
  end
end
return answer
