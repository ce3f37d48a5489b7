-- What a node counts on a channel. KEYS: counts of the channel, nodes that want to know, the
-- channels where the node counts something, occupied channels. ARGV[3]: node; 4: channel; 5: 1 if
-- it is listed; 6: what the node counts; then changes, one after another: j or a, the difference,
-- and for j how many connections there may be. The answer is, for each change, 1 or 0 if there
-- was no room, and the occupancy over all nodes after it; what the node counts now; and the nodes
-- to tell. Without changes all is written again.
local METRICS = '>i4i4i4i4i4i4i4i4'
local NONE = string.rep('\0', 32)
local LIFE = 900000

local node, name = ARGV[3], ARGV[4]
local stored = call('HGET', KEYS[1], node) or NONE
local before, total, mine = {unpack(METRICS, stored)}, {unpack(METRICS, call('HGET', KEYS[1], 't') or NONE)}, {unpack(METRICS, ARGV[6])}
for m = 1, 8 do
  total[m] = total[m] - before[m] + mine[m] -- with what the node says that it counts
end

local results = {}
for i = 7, #ARGV, 3 do
  local by, max, ok = {unpack(METRICS, ARGV[i + 1])}, tonumber(ARGV[i + 2]), true
  if ARGV[i] == 'j' then
    ok = max == 0 or by[1] <= 0 or total[1] + by[1] <= max
  else
    ok = pack(METRICS, spread(mine, 1, 8)) ~= NONE -- who counts nothing changes nothing
  end
  for m = 1, 8 do
    if ok then
      local after = mine[m] + by[m]
      if after < 0 then
        after = 0
      end
      total[m] = total[m] - mine[m] + after
      mine[m] = after
    end
  end
  results[#results + 1] = string.char((ok or ARGV[i] == 'a') and 1 or 0) .. pack(METRICS, spread(total, 1, 8))
end

local is, all = pack(METRICS, spread(mine, 1, 8)), pack(METRICS, spread(total, 1, 8))
local told = {}
if is ~= stored or #ARGV == 6 then
  if is == NONE then
    call('HDEL', KEYS[1], node)
    call('SREM', KEYS[3], name)
  else
    call('HSET', KEYS[1], node, is)
    call('SADD', KEYS[3], name)
    call('PEXPIRE', KEYS[3], LIFE)
  end
  if all == NONE then
    call('DEL', KEYS[1])
    call('ZREM', KEYS[4], name)
  else
    call('HSET', KEYS[1], 't', all)
    call('PEXPIRE', KEYS[1], LIFE)
    if ARGV[5] == '1' then
      call('ZADD', KEYS[4], 0, name)
      call('PEXPIRE', KEYS[4], LIFE)
    end
  end
end
if is ~= stored then
  told = call('SMEMBERS', KEYS[2])
  if #told > 0 then
    call('DEL', KEYS[2])
  end
end
return {table.concat(results), is, told}
