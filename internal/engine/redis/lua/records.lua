-- Records of one space. KEYS: its values, its names. ARGV: 1 for the record with the name
-- that follows, 0 for those after it; how many. Returns names and values in turn.
local out = {}
local function add(name, value)
  if value then
    local _, _, expires = unpack('>BI8I6', value)
    if expires == 0 or expires > now then
      out[#out + 1] = name
      out[#out + 1] = value
    end
  end
end
if ARGV[1] == '1' then
  add(ARGV[2], call('HGET', KEYS[1], 'k' .. ARGV[2]))
  return out
end
local after, limit = ARGV[2], tonumber(ARGV[3])
while #out < 2 * limit do
  local from = after == '' and '-' or '(' .. after
  local names = call('ZRANGEBYLEX', KEYS[2], from, '+', 'LIMIT', 0, limit - #out / 2)
  if #names == 0 then
    break
  end
  for i = 1, #names do
    add(names[i], call('HGET', KEYS[1], 'k' .. names[i]))
  end
  after = names[#names]
end
return out
