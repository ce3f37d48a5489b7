-- A connection may have members in channels. KEYS: these channels. ARGV[3] and on: some of them.
call('SADD', KEYS[1], spread(ARGV, 3))
return call('PEXPIRE', KEYS[1], 87000000) -- as long as a record that nobody looks at, and a little
