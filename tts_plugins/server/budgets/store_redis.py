"""Balances in Redis, for servers on several machines. Each change is one Lua script, so that none come in between."""

from __future__ import annotations

from typing import Any

from tts_plugins.budget import Amount
from tts_plugins.errors import ConfigurationError, MissingExtraError
from tts_plugins.server.budgets.accounts import Balance, Period, StoreFailed

_FIELDS = ("calls", "tokens", "picousd")
_KEPT_AFTER = 40 * 86400  # seconds that a period's balance stays readable after its end

# KEYS: one for each period. ARGV: whole, the wanted amounts, then three limits for each period (-1: none), then how
# long each key lives. As `accounts.grantable` decides. Whole numbers below 2**53: Lua's are floats.
_TAKE = """
local grant = {tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])}
local fields = {'calls', 'tokens', 'picousd'}
for p = 1, #KEYS do
  for i = 1, 3 do
    local limit = tonumber(ARGV[4 + (p - 1) * 4 + i])
    if limit >= 0 and tonumber(ARGV[1 + i]) > 0 then
      local left = limit - tonumber(redis.call('HGET', KEYS[p], fields[i]) or '0')
      if left < grant[i] then grant[i] = left end
      if grant[i] <= 0 or (ARGV[1] == '1' and grant[i] < tonumber(ARGV[1 + i])) then return false end
    end
  end
end
for p = 1, #KEYS do
  for i = 1, 3 do redis.call('HINCRBY', KEYS[p], fields[i], string.format('%.0f', grant[i])) end
  redis.call('EXPIRE', KEYS[p], ARGV[4 + p * 4])
end
return {string.format('%.0f', grant[1]), string.format('%.0f', grant[2]), string.format('%.0f', grant[3])}
"""


class RedisStore:
    """A `UsageStore` in Redis, under keys that begin with `tts-plugins:`.

    Raises:
        MissingExtraError: the package `redis` is not installed.
        ConfigurationError: the address is not one of Redis.
    """

    def __init__(self, url: str) -> None:
        try:
            from redis import asyncio as redis
        except ImportError as error:
            raise MissingExtraError("store: an address of Redis needs redis: pip install redis") from error
        try:
            self._client: Any = redis.from_url(url, decode_responses=True, socket_timeout=10, socket_connect_timeout=5)
        except ValueError:  # it may quote a part of the password
            raise ConfigurationError(
                "store: not an address of Redis; use redis://host:6379/0, and %2F for a / in its password"
            ) from None
        self._take = self._client.register_script(_TAKE)

    async def take(self, tenant: str, periods: tuple[Period, ...], wanted: Amount, *, whole: bool) -> Amount | None:
        """See `UsageStore.take`."""
        numbers: list[int] = [int(whole), *wanted]
        for period in periods:
            numbers += [-1 if limit is None else limit for limit in period.limits]
            numbers.append(int(period.seconds_left) + _KEPT_AFTER)
        granted = await self._do(self._take(keys=_keys(tenant, periods), args=numbers))
        return None if granted is None else Amount(*map(int, granted))

    async def settle(self, tenant: str, periods: tuple[Period, ...], taken: Amount, used: Amount) -> None:
        """See `UsageStore.settle`."""
        change = used.minus(taken)
        pipeline = self._client.pipeline(transaction=True)
        for key in _keys(tenant, periods):
            for field, more, spent in zip(_FIELDS, change, used, strict=True):
                pipeline.hincrby(key, field, more)
                pipeline.hincrby(key, f"spent_{field}", spent)
        await self._do(pipeline.execute())

    async def balances(self, tenant: str, periods: tuple[Period, ...]) -> dict[str, Balance]:
        """See `UsageStore.balances`."""
        out = {}
        for period, key in zip(periods, _keys(tenant, periods), strict=True):
            row = await self._do(self._client.hgetall(key))
            charged, spent = ([int(row.get(prefix + field, 0)) for field in _FIELDS] for prefix in ("", "spent_"))
            out[period.key] = Balance(Amount(*charged), Amount(*spent))
        return out

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _do(self, awaitable: Any) -> Any:
        from redis.exceptions import RedisError

        try:
            return await awaitable
        except (RedisError, OSError) as error:
            raise StoreFailed(f"redis: {type(error).__name__}") from error


def _keys(tenant: str, periods: tuple[Period, ...]) -> list[str]:
    # The braces keep a tenant's keys on one node of a cluster, as a script needs them.
    return [f"tts-plugins:{{{tenant}}}:{period.key}" for period in periods]
