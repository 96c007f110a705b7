"""What can be said without training: each module's `findings()` and `examined()`, gathered by `audit.run_checks`."""
