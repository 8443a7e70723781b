"""The laboratory's commands: ``pagedcore plan | bench | replay | simulate | calibrate``."""
