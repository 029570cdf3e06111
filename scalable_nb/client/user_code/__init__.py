"""The user's code on its way to workers: functions by value, imported modules by source."""
