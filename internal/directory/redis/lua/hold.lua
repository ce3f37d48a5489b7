-- A lock is held for longer. KEYS: the lock. ARGV[3]: who has it; 4: for how many ms. The answer is 0
-- if it is not theirs any more.
if call('GET', KEYS[1]) ~= ARGV[3] then
  return 0
end
return call('PEXPIRE', KEYS[1], ARGV[4])
