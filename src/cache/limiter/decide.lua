-- One decision over all its tiers: first every tier is looked at, then all are
-- charged or none (the whole script is atomic). Time is this server's.
--
-- KEYS[2i-1]  counter of tier i: a list of instants (exact log), a hash of
--             sub-buckets, or for a period (a calendar month) one integer
-- KEYS[2i]    set of the counters of the tier's subject, to forget them by
-- ARGV        cost,
--             permits wanted at once, permits expected to be wanted soon, and
--             in how many parts what is left is divided for the latter, when
--             permits that are taken back were charged; then per tier: 's' or
--             'p', limit, window in us (for a period: us left of it), permits
--             to take back, seed of the period or '', ms to keep its count
-- Returns     {1 admitted | 0 refused | 2 seed wanted, tier (from 1, 0: none),
--             used, us until quota comes back,
--             permits charged beside the cost, us for which they may be used,
--             now, tier that is full after this (0: none), us until it is not}

local EXACT, BUCKETS, SLACK_MS = 200, 60, 1000

-- A lease: its longest life, the time that the expected demand is for, the
-- shortest life worth while, the most permits, and what is not divided further.
local LIFE_US, SPAN_US, SHORTEST_US, MOST, SMALL = 100000, 50000, 1000, 256, 8
local HEAD, EACH = 5, 6

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local cost = tonumber(ARGV[1])
local need = math.max(cost, 1)
local waiting, expected, parts = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local taken_at = tonumber(ARGV[5])

local function text(n) return string.format('%.0f', n) end

-- A failover may set the clock back; an instant never counts as earlier than
-- the newest one.
local function read_log(tier)
  local newest = redis.call('LINDEX', tier.key, -1)
  tier.at = math.max(now, tonumber(newest) or 0)
  local oldest = redis.call('LINDEX', tier.key, 0)
  while oldest and tonumber(oldest) <= tier.at - tier.window do
    redis.call('LPOP', tier.key)
    oldest = redis.call('LINDEX', tier.key, 0)
  end
  tier.used = redis.call('LLEN', tier.key)
end

local function read_buckets(tier)
  local head = redis.call('HMGET', tier.key, 'sum', 'newest')
  local sum, newest = tonumber(head[1]) or 0, tonumber(head[2])
  local current = math.floor(now / tier.width)
  if newest and newest >= current then
    current = newest
  elseif newest and current - newest > BUCKETS then
    redis.call('DEL', tier.key)
    tier.fresh, sum = true, 0
  elseif newest then
    local left = {}
    for bucket = newest - BUCKETS, current - BUCKETS - 1 do left[#left + 1] = text(bucket) end
    for _, count in ipairs(redis.call('HMGET', tier.key, unpack(left))) do
      sum = sum - (tonumber(count) or 0)
    end
    redis.call('HDEL', tier.key, unpack(left))
    redis.call('HSET', tier.key, 'sum', text(sum), 'newest', text(current))
  end
  tier.used, tier.current = sum, current
end

-- The limit grew beyond what a log is kept for. Never the other way round: a
-- log could not tell when the requests of one bucket came.
local function log_to_buckets(tier)
  local instants = redis.call('LRANGE', tier.key, 0, -1)
  redis.call('DEL', tier.key)
  for _, at in ipairs(instants) do
    redis.call('HINCRBY', tier.key, text(math.floor(at / tier.width)), 1)
  end
  local newest = math.floor(tier.at / tier.width)
  redis.call('HSET', tier.key, 'sum', #instants, 'newest', text(newest))
  redis.call('PEXPIRE', tier.key, text(tier.life))
  tier.current = newest
end

local function read_sliding(tier)
  local kind = redis.call('TYPE', tier.key).ok
  tier.fresh = kind == 'none'
  tier.buckets = kind == 'hash' or (kind ~= 'list' and tier.limit > EXACT)
  if tier.buckets then
    read_buckets(tier)
  else
    read_log(tier)
    if tier.limit > EXACT and tier.used > 0 then
      log_to_buckets(tier)
      tier.buckets = true
    elseif tier.limit > EXACT then
      tier.buckets = true
      read_buckets(tier)
    end
  end
end

-- Microseconds until the oldest `count` have left.
local function frees_in(tier, count)
  if tier.period then return tier.window end
  if count == 0 then return 0 end
  if count > tier.used then return tier.window end
  if not tier.buckets then
    return math.max(0, redis.call('LINDEX', tier.key, count - 1) + tier.window - now)
  end
  local buckets = {}
  for bucket = tier.current - BUCKETS, tier.current do buckets[#buckets + 1] = text(bucket) end
  local seen = 0
  for i, held in ipairs(redis.call('HMGET', tier.key, unpack(buckets))) do
    seen = seen + (tonumber(held) or 0)
    if seen >= count then
      return math.max(0, (tier.current + i) * tier.width - now)
    end
  end
  return tier.window
end

-- Permits that nobody used leave where they were charged; if that is gone, so
-- are they.
local function take_back(tier)
  if tier.unused == 0 then return end
  local count = 0
  if tier.period then
    count = math.min(tier.unused, tier.used)
    if count > 0 then redis.call('DECRBY', tier.key, count) end
  elseif tier.buckets then
    local bucket = text(math.floor(taken_at / tier.width))
    count = math.min(tier.unused, tonumber(redis.call('HGET', tier.key, bucket)) or 0)
    if count > 0 then
      redis.call('HINCRBY', tier.key, bucket, -count)
      redis.call('HINCRBY', tier.key, 'sum', -count)
    end
  end
  tier.used = tier.used - count
end

local function charge(tier, count)
  if tier.period then
    redis.call('INCRBY', tier.key, count)
    return
  end
  if tier.buckets then
    redis.call('HINCRBY', tier.key, text(tier.current), count)
    redis.call('HINCRBY', tier.key, 'sum', count)
    redis.call('HSET', tier.key, 'newest', text(tier.current))
  else
    for _ = 1, count do redis.call('RPUSH', tier.key, text(tier.at)) end
  end
  redis.call('PEXPIRE', tier.key, text(tier.life))
  if tier.fresh then
    redis.call('SADD', tier.index, tier.key)
    if redis.call('PTTL', tier.index) < 2 * tier.life then
      redis.call('PEXPIRE', tier.index, text(math.max(172800000, 4 * tier.life)))
    end
  end
end

-- How many permits to hand out, and for how long. They end with the current
-- sub-bucket of every tier, in which they are charged: it is counted until a
-- window after its end, hence after the last instant they may be used.
local function lease(tiers)
  if waiting + expected == 0 then return 0, 0 end
  local left, life = math.huge, LIFE_US
  for _, tier in ipairs(tiers) do
    left = math.min(left, tier.limit - tier.used - cost)
    if tier.period then
      life = math.min(life, tier.window)
    elseif tier.buckets and tier.current == math.floor(now / tier.width) then
      life = math.min(life, (tier.current + 1) * tier.width - now)
    else
      return 0, 0
    end
  end
  if left <= 0 or life < SHORTEST_US then return 0, 0 end
  local sure = math.min(waiting, left)
  local rest = left - sure
  local share = math.max(math.floor(rest / parts), math.min(rest, SMALL))
  local more = math.ceil(expected * math.min(1, life / SPAN_US))
  return math.min(sure + math.min(more, share), MOST), math.floor(life)
end

local tiers = {}
local refused, refused_for, nearest, unseeded
for i = 1, #KEYS / 2 do
  local first = HEAD + EACH * (i - 1)
  local tier = {
    key = KEYS[2 * i - 1], index = KEYS[2 * i], period = ARGV[first + 1] == 'p',
    limit = tonumber(ARGV[first + 2]), window = tonumber(ARGV[first + 3]),
    unused = tonumber(ARGV[first + 4]), seed = tonumber(ARGV[first + 5]),
    keep = ARGV[first + 6],
  }
  tiers[i] = tier
  if tier.period then
    tier.used = tonumber(redis.call('GET', tier.key))
    if not tier.used then
      if tier.seed then
        redis.call('SET', tier.key, text(tier.seed), 'PX', tier.keep)
      else
        unseeded = unseeded or i
      end
      tier.used = tier.seed or 0
    else
      take_back(tier)
    end
  else
    tier.width = math.ceil(tier.window / BUCKETS)
    tier.life = math.ceil(tier.width * (BUCKETS + 1) / 1000) + SLACK_MS
    read_sliding(tier)
    take_back(tier)
  end
  if tier.used + need > tier.limit then
    -- Of several full tiers the one that stays full longest is named.
    local wait = frees_in(tier, tier.used + need - tier.limit)
    if not refused or wait > refused_for then refused, refused_for = i, wait end
  end
end

if unseeded then return {2, unseeded, 0, 0, 0, 0, now, 0, 0} end
if refused then return {0, refused, tiers[refused].used, refused_for, 0, 0, now, 0, 0} end

local permits, life = lease(tiers)
for i, tier in ipairs(tiers) do
  if cost > 0 then
    charge(tier, cost + permits)
    tier.used = tier.used + cost
  end
  -- Smallest share of the limit left.
  if not nearest or (tier.limit - tier.used) * tiers[nearest].limit
      < (tiers[nearest].limit - tiers[nearest].used) * tier.limit then
    nearest = i
  end
end
if not nearest then return {1, 0, 0, 0, 0, 0, now, 0, 0} end
local used = tiers[nearest].used
local frees = frees_in(tiers[nearest], math.min(1, used))
-- So that the next request need not ask to learn it.
local full, full_for = 0, 0
for i, tier in ipairs(tiers) do
  tier.used = tier.used + permits
  if tier.used >= tier.limit then
    local wait = frees_in(tier, tier.used - tier.limit + 1)
    if full == 0 or wait > full_for then full, full_for = i, wait end
  end
end
return {1, nearest, used, frees, permits, life, now, full, full_for}
