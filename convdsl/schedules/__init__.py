"""How tensor expressions become loops. One package per target."""
