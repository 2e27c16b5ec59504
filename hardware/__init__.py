"""The real arm: bus, safety, driver, twin, cameras and teleoperation."""
