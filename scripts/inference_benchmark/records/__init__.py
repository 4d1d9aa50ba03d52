"""What a finished cell or study leaves behind."""
