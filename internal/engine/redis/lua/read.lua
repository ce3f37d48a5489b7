-- Logged entries. KEYS: state, log, and the last message if it is kept. ARGV: retention, maxEntries, maxBytes; 1 for exact;
-- after as ms, counter, epoch; the range as two stream ids; 1 for backwards; how many;
-- for how long the last message is kept, in ms.
-- Returns a status, the position of the tail, the last message if the log has it no more,
-- and entries.
local retention = tonumber(ARGV[1])
local exact = ARGV[4] == '1'
if not load() then
  if exact then
    return {ARGV[7] == EPOCH and 'gone' or 'foreign'}
  end
  dropLog()
end
repeat
  local _, more = trim(retention, tonumber(ARGV[2]), tonumber(ARGV[3]), 0)
until not more
save(retention) -- in any case: what is not a primary any more refuses
if exact then
  local m, c, epoch = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
  if m ~= baseMs or c ~= baseCounter or epoch ~= baseEpoch then
    local id = ARGV[5] .. '-' .. ARGV[6]
    local found = call('XRANGE', KEYS[2], id, id)[1]
    if not found or sub(found[2][2], 2, 9) ~= epoch then
      if epoch == EPOCH or epoch == baseEpoch then
        return {'gone'}
      end
      for i = 1, #epochs, 8 do
        if sub(epochs, i, i + 7) == epoch then
          return {'gone'}
        end
      end
      return {'foreign'}
    end
  end
end
local list
if ARGV[8] == '' then
  list = {} -- nothing is selected
elseif ARGV[10] == '1' then
  list = call('XREVRANGE', KEYS[2], ARGV[9], ARGV[8], 'COUNT', ARGV[11])
else
  list = call('XRANGE', KEYS[2], ARGV[8], ARGV[9], 'COUNT', ARGV[11])
end
local last = ''
if KEYS[3] then
  last = call('GET', KEYS[3]) or ''
  if last ~= '' then
    local m, c = unpack('>I6I3', last)
    if m > baseMs or m == baseMs and c > baseCounter or m < now - tonumber(ARGV[12]) then
      last = '' -- it is in the log, or too old
    end
  end
end
local out = {'ok', pack('>I6I3c8', tailMs, tailCounter, tailEpoch), last}
for i = 1, #list do
  local m, c = parseID(list[i][1])
  out[#out + 1] = pack('>I6I3', m, c) .. list[i][2][2]
end
return out
