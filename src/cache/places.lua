-- How many of a subject's places one instance may give out; the others keep what
-- they were lent. Time is this server's.
--
-- KEYS[1]  hash of instances: "places:until when, ms:number of the call"
-- ARGV     instance, number of its call, places it wants in all, places that are
--          taken, places there are, ms for which they are lent
-- Returns  places it has now

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local call, wanted, taken = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local most, life = tonumber(ARGV[5]), tonumber(ARGV[6])

local others = 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local places, ends, last = all[i + 1]:match('^(%d+):(%d+):(%d+)$')
  if all[i] == ARGV[1] then
    -- A call that was given up long ago, and is only read now.
    if tonumber(last) >= call then return tonumber(places) end
  elseif tonumber(ends) <= now then
    redis.call('HDEL', KEYS[1], all[i])
  else
    others = others + tonumber(places)
  end
end

local has = math.max(taken, math.min(wanted, most - others), 0)
-- Kept also where it is none, for the number.
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f:%.0f:%.0f', has, now + life, call))
redis.call('PEXPIRE', KEYS[1], 2 * life)
return has
