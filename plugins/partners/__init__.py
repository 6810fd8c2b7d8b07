"""Partner agencies: events leave as Standard Webhooks requests with a CloudEvents body."""

from __future__ import annotations

from collections.abc import Sequence

from hub.contract import ConnectorType
from hub.hookspecs import hookimpl
from plugins.partners.connector import open_connection
from plugins.partners.settings import PartnerSettings
from plugins.partners.simulated import SIMULATOR


@hookimpl
def hub_connector_types() -> Sequence[ConnectorType]:
    return [
        ConnectorType(
            name="partner",
            settings=PartnerSettings,
            open=open_connection,
            title_vi="Đơn vị đối tác",
            title_en="Partner agency",
            simulator=SIMULATOR,
        )
    ]
