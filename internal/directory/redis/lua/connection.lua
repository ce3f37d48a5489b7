-- The record of a connection. KEYS: the record, the channels where it has members. ARGV[3]: what
-- to do, then what it needs. The answer is a status, the record as it was found, and what it
-- is now.
local OK, EXISTS, NOT_FOUND, SUPERSEDED = 0, 1, 2, 3
local CONNECTED, DISCONNECTED, REAPED = 1, 2, 3
local HEADER = '>BBI6I6I6I4' -- version 1, state, generation, committed, deadline, grace
local MORE = 600000 -- for how many ms after the record the channels are known
local LIFE = 86400000 -- for how many ms a Connected record lives after its node has looked at it

local op = ARGV[3]
local found = call('GET', KEYS[1])
local state, generation, committed, deadline, grace, at
if found then
  local version
  version, state, generation, committed, deadline, grace, at = unpack(HEADER, found)
  if version ~= 1 then
    return redis.error_reply('VERSION a connection record has version ' .. version .. ', known is 1')
  end
  if deadline ~= 0 and now >= deadline then
    found = false
  end
end

-- lifetime gives the keys as long as they are to live.
local function lifetime()
  local left = LIFE
  if deadline ~= 0 then
    left = deadline > now and deadline - now or 0
  end
  call('PEXPIRE', KEYS[1], left + 1000)
  if grace > left then
    left = grace
  end
  call('PEXPIRE', KEYS[2], left + MORE)
end

local function save(tail)
  local new = pack(HEADER, 1, state, generation, committed, deadline, grace) .. tail
  call('SET', KEYS[1], new, 'KEEPTTL')
  return new
end

if op == 'create' then -- record
  if found then
    return {EXISTS, found}
  end
  call('SET', KEYS[1], ARGV[4], 'PX', LIFE)
  call('DEL', KEYS[2])
  return {OK}
elseif op == 'look' then
  return found and {OK, found} or {NOT_FOUND}
elseif op == 'reclaim' then -- record
  local new = ARGV[4]
  if found then
    local _, _, g, c = unpack(HEADER, new)
    if g < generation then
      return {SUPERSEDED, found}
    end
    if g == generation and c < committed then
      new = pack(HEADER, 1, CONNECTED, g, committed, 0, select(6, unpack(HEADER, new))) .. sub(new, at)
    end
  end
  call('SET', KEYS[1], new, 'PX', LIFE)
  call('PEXPIRE', KEYS[2], LIFE + MORE)
  return {OK, found or '', new}
elseif not found then
  return {NOT_FOUND}
end

local tail = sub(found, at) -- app, digest, the owner's name and incarnation: each 4 bytes of length before it
local nameAt = at
for _ = 1, 2 do
  nameAt = nameAt + 4 + unpack('>I4', found, nameAt)
end

if op == 'resume' then -- generation, owner
  local from = tonumber(ARGV[4])
  if from > generation then
    return {NOT_FOUND, found}
  elseif from < committed then
    return {SUPERSEDED, found}
  end
  state, generation, deadline = CONNECTED, generation + 1, 0
  local new = save(sub(found, at, nameAt - 1) .. ARGV[5])
  lifetime()
  return {OK, found, new}
elseif op == 'keep' then -- owner
  if sub(found, nameAt) ~= ARGV[4] then
    return {SUPERSEDED, found}
  end
  if state == CONNECTED then
    lifetime()
  end
  return {OK, found, found}
elseif op == 'orphan' then -- owner, ms that it may be resumed
  if sub(found, nameAt) ~= ARGV[4] then
    return {SUPERSEDED, found}
  end
  if state ~= CONNECTED then
    return {OK, found, found}
  end
  state, deadline = DISCONNECTED, now + tonumber(ARGV[5])
  local new = save(tail)
  lifetime()
  return {OK, found, new}
end

local given = tonumber(ARGV[4])
if given > generation then
  return {NOT_FOUND}
elseif given < generation then
  return {SUPERSEDED}
end
if op == 'commit' then
  committed = generation
elseif op == 'disconnect' then -- deadline
  if state == CONNECTED then
    state = DISCONNECTED
  end
  deadline = tonumber(ARGV[5])
elseif op == 'reap' then
  if state == CONNECTED then
    return {SUPERSEDED}
  end
  state = REAPED
elseif op == 'close' then
  call('DEL', KEYS[1], KEYS[2])
  return {OK, found}
end
local new = save(tail)
if op == 'disconnect' then
  lifetime()
end
return {OK, found, new}
