"""What can be looked up: groups of features with their types and how long a value holds."""

from datetime import timedelta

import pyarrow as pa
from entities import customer
from feast import FeatureView, Field
from feast.types import Float64, String
from sources import customer_profile_push
from state import CUSTOMER_PROFILE, create_empty

customer_profile = FeatureView(
    name="customer_profile",
    description="A customer's last known profile: 90-day aggregates and tenure, up to and including the latest event.",
    entities=[customer],
    ttl=timedelta(days=365),  # after a year of silence the profile says nothing: the model's defaults stand in
    schema=[
        Field(name="customer_id", dtype=String),
        Field(name="orders_90d", dtype=Float64, description="Events with at least one purchase."),
        Field(name="spend_90d", dtype=Float64, description="Purchases before returns."),
        Field(name="return_share_90d", dtype=Float64, description="Returned lines of all lines, 0..1."),
        Field(name="mean_basket_90d", dtype=Float64, description="Spend per order."),
        Field(name="tenure_days", dtype=Float64, description="Since the first event."),
    ],
    source=customer_profile_push,
    online=True,
    owner="team:ml-platform",
)

create_empty(
    CUSTOMER_PROFILE,
    {
        "customer_id": pa.string(),
        "event_timestamp": pa.timestamp("us", tz="UTC"),
        "created_timestamp": pa.timestamp("us", tz="UTC"),
        **{feature.name: pa.float64() for feature in customer_profile.features},
    },
)
