"""Where feature values come from: the batch file that lineage writes, and events pushed between two batches."""

from feast import FileSource, PushSource
from feast.data_format import ParquetFormat
from state import CUSTOMER_PROFILE

customer_profile_file = FileSource(
    name="customer_profile_file",
    path=str(CUSTOMER_PROFILE),
    file_format=ParquetFormat(),
    timestamp_field="event_timestamp",
    created_timestamp_column="created_timestamp",
    description="One row per customer and event: the profile as of that event, and when it could be known.",
)

customer_profile_push = PushSource(
    name="customer_profile_push",
    batch_source=customer_profile_file,
    description="Rows that arrive late or between two materialisations.",
)
