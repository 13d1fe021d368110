"""triage: acute-stroke triage of brain diffusion MR, from C-STORE to an acknowledged page.

Research software. Not a medical device.
"""

__version__ = "0.1.0"
