-- Takes the most recent charge of every tier back.
-- KEYS  counters, as in decide.lua
-- ARGV  cost

local BUCKETS = 60
local cost = tonumber(ARGV[1])

local function from_buckets(key)
  local newest = tonumber(redis.call('HGET', key, 'newest'))
  if not newest then return end
  local left = cost
  for bucket = newest, newest - BUCKETS, -1 do
    if left == 0 then return end
    local field = string.format('%.0f', bucket)
    local taken = math.min(left, tonumber(redis.call('HGET', key, field)) or 0)
    if taken > 0 then
      redis.call('HINCRBY', key, field, -taken)
      redis.call('HINCRBY', key, 'sum', -taken)
      left = left - taken
    end
  end
end

for _, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'list' then
    for _ = 1, math.min(cost, redis.call('LLEN', key)) do redis.call('RPOP', key) end
  elseif kind == 'hash' then
    from_buckets(key)
  elseif kind == 'string' then
    local used = tonumber(redis.call('GET', key))
    redis.call('DECRBY', key, string.format('%.0f', math.min(cost, used)))
  end
end
return 1
