"""What views cost and bring: the efficiency study."""
