"""Floor 2: muxers carry many streams over one secured stream."""
