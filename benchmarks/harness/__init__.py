"""What measurements are made with. Nothing here measures anything by itself."""
