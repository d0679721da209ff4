"""Floor 2: agreeing on protocols, and from a raw stream to a capable connection."""
