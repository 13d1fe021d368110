"""What happens to one series, in order: receive, gather, analyse, deliver, alert."""
