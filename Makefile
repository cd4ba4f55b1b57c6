check:
	scripts/check

.PHONY: check
