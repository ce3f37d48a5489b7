-- A page of active channels. KEYS: occupied ones, names of touched ones, and until when. ARGV[3],
-- 4: the range of names, as in ZRANGEBYLEX; 5: how many of each kind.
local from, to, limit = ARGV[3], ARGV[4], tonumber(ARGV[5])
local names = call('ZRANGEBYLEX', KEYS[1], from, to, 'LIMIT', 0, limit)
local found = 0
while found < limit do
  local some = call('ZRANGEBYLEX', KEYS[2], from, to, 'LIMIT', 0, 256)
  if #some == 0 then
    break
  end
  local scores = call('ZMSCORE', KEYS[3], spread(some))
  for i, name in ipairs(some) do
    if scores[i] and tonumber(scores[i]) > now and found < limit then
      names[#names + 1] = name
      found = found + 1
    end
  end
  from = '(' .. some[#some]
end
return names
