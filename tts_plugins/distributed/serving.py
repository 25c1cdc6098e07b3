"""The server as a Ray Serve deployment: replicas on any node, and one account of what tenants have spent.

    from ray import serve
    serve.run(deployment(ServerSettings(base_url="http://127.0.0.1:8000/v1", tenants="tenants.toml"), replicas=4))

It needs `pip install 'ray[serve]' 'tts-plugins[ray,server]'`.
"""

from __future__ import annotations

import hashlib
from typing import Any

from tts_plugins._internal.config import check_count
from tts_plugins._internal.files import expanded
from tts_plugins.budget import Amount
from tts_plugins.distributed.connection import NAMESPACE, ray_module, versions
from tts_plugins.errors import ConfigurationError, MissingExtraError
from tts_plugins.server import ServerSettings
from tts_plugins.server.budgets.accounts import Balance, Period, StoreFailed

_NAME = "tts-plugins-spending"


def deployment(
    settings: ServerSettings, *, replicas: int = 2, name: str = "tts-plugins", options: dict[str, Any] | None = None
) -> Any:
    """Return an application for `serve.run`.

    Args:
        settings: those of `tts-plugins serve`. Files that they name must be on each node; keys are read from each
            node's environment. Who may call is asked as there; the host and the port are Ray Serve's.
        replicas: how many processes answer.
        name: of the deployment.
        options: further ones for Ray Serve, such as `autoscaling_config` or `ray_actor_options`.

    Raises:
        ConfigurationError: a setting is wrong.
        MissingExtraError: Ray Serve is not installed.
    """
    check_count("deployment", "replicas", replicas)
    if settings.base_url is None:
        raise ConfigurationError(
            "deployment: base_url is missing: each replica would start an embedded model; give the server that answers"
        )
    ray_module()
    try:
        from ray import serve
    except ImportError as error:
        raise MissingExtraError(f"deployment needs Ray Serve ({error}): pip install 'ray[serve]'") from error
    recipe = settings.to_json()

    def application() -> Any:
        from tts_plugins.server.app import Server

        made = ServerSettings.from_json(recipe)
        return Server(made, store=ActorStore(made.store or "tts-plugins-usage.sqlite")).application()

    class Replica:
        """One process of the server."""

    limit = min(settings.max_requests, 1024)
    given = {"name": name, "num_replicas": replicas, "max_ongoing_requests": limit, **(options or {})}
    return serve.deployment(**given)(serve.ingress(application)(Replica)).bind()


class ActorStore:
    """A `UsageStore` that all replicas share: a named actor keeps it in an SQLite file on its node.

    Args:
        path: the file, on the node that the actor is started on.
    """

    def __init__(self, path: str) -> None:
        ray = ray_module()
        self._errors: type[Exception] = ray.exceptions.RayError
        # Each file has an actor of its own, and so has each build: one of an older deployment would run old code.
        which = hashlib.blake2b(f"{path} {versions()}".encode(), digest_size=6).hexdigest()
        self._actor = (
            ray.remote(_Spending)
            .options(name=f"{_NAME}-{which}", namespace=NAMESPACE, get_if_exists=True, lifetime="detached", num_cpus=0,
                     max_restarts=-1)
            .remote(str(expanded(path)))
        )  # fmt: skip

    async def take(self, tenant: str, periods: tuple[Period, ...], wanted: Amount, *, whole: bool) -> Amount | None:
        """See `UsageStore.take`."""
        granted: Amount | None = await self._ask(self._actor.take.remote(tenant, periods, wanted, whole))
        return granted

    async def settle(self, tenant: str, periods: tuple[Period, ...], taken: Amount, used: Amount) -> None:
        """See `UsageStore.settle`."""
        await self._ask(self._actor.settle.remote(tenant, periods, taken, used))

    async def balances(self, tenant: str, periods: tuple[Period, ...]) -> dict[str, Balance]:
        """See `UsageStore.balances`."""
        found: dict[str, Balance] = await self._ask(self._actor.balances.remote(tenant, periods))
        return found

    async def close(self) -> None:
        """Leave the actor to the other replicas."""

    async def _ask(self, answer: Any) -> Any:
        # Not repeated: it is not known whether a transaction was made, and made twice it would charge twice. What an
        # actor that died had taken stays charged.
        try:
            return await answer
        except self._errors as error:
            raise StoreFailed(f"the account of spending: {type(error).__name__}") from error


class _Spending:
    """The actor: the same store as that of one machine."""

    def __init__(self, path: str) -> None:
        from tts_plugins.server.budgets.store_sqlite import SQLiteStore

        self._store = SQLiteStore(path)

    async def take(self, tenant: str, periods: tuple[Period, ...], wanted: Amount, whole: bool) -> Amount | None:
        return await self._store.take(tenant, periods, wanted, whole=whole)

    async def settle(self, tenant: str, periods: tuple[Period, ...], taken: Amount, used: Amount) -> None:
        await self._store.settle(tenant, periods, taken, used)

    async def balances(self, tenant: str, periods: tuple[Period, ...]) -> dict[str, Balance]:
        return await self._store.balances(tenant, periods)
