-- A notice for a node. KEYS: its notices. ARGV[3]: the notice; more may follow.
for i = 3, #ARGV do
  call('XADD', KEYS[1], 'MAXLEN', '~', 4096, '*', 'n', ARGV[i])
end
call('PEXPIRE', KEYS[1], 600000)
return 1
