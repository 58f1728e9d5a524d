"""Fills stores region by region: outputs begun and resumed, a ledger of what is done."""
