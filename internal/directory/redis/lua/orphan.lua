-- A connection becomes an orphan, unless it is one. KEYS: orphans. ARGV[3]: id; 4: for how many
-- ms its members stay.
call('ZADD', KEYS[1], 'NX', now + tonumber(ARGV[4]), ARGV[3])
return call('PEXPIRE', KEYS[1], 2 * 86400000)
