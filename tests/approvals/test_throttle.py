from approvals.throttle import ATTEMPTS, MAX_PEERS, WINDOW, Throttle


def failed(times, at=0.0, peer="10.0.0.1"):
    attempts = Throttle()
    for _ in range(times):
        attempts.record_failure(peer, at)
    return attempts


def test_repeated_failures_block_an_address():
    assert not failed(ATTEMPTS - 1).is_blocked("10.0.0.1", 0.0)
    assert failed(ATTEMPTS).is_blocked("10.0.0.1", 0.0)


def test_other_addresses_are_not_blocked():
    assert not failed(ATTEMPTS).is_blocked("10.0.0.2", 0.0)


def test_failures_are_forgotten_after_a_while():
    assert failed(ATTEMPTS).is_blocked("10.0.0.1", WINDOW - 1)
    assert not failed(ATTEMPTS).is_blocked("10.0.0.1", WINDOW)


def test_the_number_of_addresses_is_limited_and_the_oldest_is_dropped():
    attempts = failed(ATTEMPTS)
    for number in range(MAX_PEERS):
        attempts.record_failure(f"peer {number}", 1.0)
    assert not attempts.is_blocked("10.0.0.1", 1.0)
    assert len(attempts._failed) == MAX_PEERS
