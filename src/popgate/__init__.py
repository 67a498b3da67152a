"""popgate: POP before SMTP for devices and programs that cannot do modern SMTP authentication."""

__version__ = "0.1.0"
