-- The connections of one app that nodes answer for. KEYS: how many are Connected, those of a
-- node, and perhaps those of another. ARGV[3]: id; 4: what to do; 5: until when the node
-- answers for it, in ms, or inf if it is Connected; 6: how many of the app may be Connected, or
-- 0. The answer is 0 if there are as many, else 1, or 2 if the id was there before.
local id, op, score, max = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local LIFE = 172800000 -- for how many ms the index lives without its node
local more = 0
local was = call('ZSCORE', KEYS[2], id)

if op == 'reserve' then
  if max > 0 and was ~= 'inf' and tonumber(call('GET', KEYS[1]) or 0) >= max then
    return 0
  end
  if not was then
    call('ZADD', KEYS[2], score, id)
    more = 1
  end
elseif op == 'put' or op == 'keep' and was then -- keep changes only what is there
  call('ZADD', KEYS[2], score, id)
  more = (score == 'inf' and 1 or 0) - (was == 'inf' and 1 or 0)
elseif op == 'remove' then
  call('ZREM', KEYS[2], id)
  more = was == 'inf' and -1 or 0
end
if KEYS[3] then
  if call('ZSCORE', KEYS[3], id) == 'inf' then
    more = more - 1
  end
  call('ZREM', KEYS[3], id)
end
if not was then
  call('PEXPIRE', KEYS[2], LIFE)
end
if more ~= 0 and call('INCRBY', KEYS[1], more) <= 0 then
  call('DEL', KEYS[1])
end
return was and 2 or 1
