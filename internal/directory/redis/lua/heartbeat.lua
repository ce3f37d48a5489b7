-- A node lives. KEYS: nodes by their last heartbeat, in ms, and those that are gone and not
-- buried. ARGV[3]: node; 4: for how many ms a heartbeat is good; 5: until when
-- the nodes whose time is over are taken for gone, in ms. The answer is whether the node was known (1), was not (0), or is
-- to be buried first (2), the time, and who is to be buried.
local node, lease = ARGV[3], tonumber(ARGV[4])
local known = 0
if call('ZSCORE', KEYS[2], node) then
  known = 2
elseif call('ZADD', KEYS[1], real, node) == 0 then
  known = 1
end
if real < tonumber(ARGV[5]) then
  for _, other in ipairs(call('ZRANGEBYSCORE', KEYS[1], '-inf', real - lease, 'LIMIT', 0, 16)) do
    call('ZADD', KEYS[2], real, other)
    call('ZREM', KEYS[1], other)
  end
end
return {known, real, call('ZRANGE', KEYS[2], 0, 15)}
