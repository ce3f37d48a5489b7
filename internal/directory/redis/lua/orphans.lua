-- Orphans by when they are due. KEYS: orphans. ARGV[3]: for how many ms who gets them has them;
-- 4: how many.
local due = call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[4])
for _, id in ipairs(due) do
  call('ZADD', KEYS[1], now + tonumber(ARGV[3]), id)
end
return due
