"""Lines that move while a run works, and where they are not shown."""

import io
import logging
import sys
import time

from prewrite.run import progress
from prewrite.run.progress import phase_line, training_bar
from prewrite.task_models.counting import Usage


class Terminal(io.StringIO):
    def isatty(self):
        return True


def to_terminal(monkeypatch):
    """A screen in place of standard error; not by a fixture, since pytest sets standard error after those."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress, "TICK", 0.01)
    return screen


def wait_for(screen, text):
    end = time.monotonic() + 10
    while text not in screen.getvalue():
        assert time.monotonic() < end, screen.getvalue()
        time.sleep(0.01)


def test_a_phase_moves_with_the_answers_and_counts_its_own(monkeypatch):
    terminal = to_terminal(monkeypatch)
    usage = Usage(prompts=7)
    with phase_line("choosing", usage):
        wait_for(terminal, "choosing: 00:00, 0 questions")
        usage.prompts = 12
        wait_for(terminal, "5 questions")
    assert "12 questions" not in terminal.getvalue()


def test_the_training_bar_moves_between_updates(monkeypatch):
    terminal = to_terminal(monkeypatch)
    usage = Usage()
    with training_bar(4, usage) as show:
        usage.prompts = 1234
        wait_for(terminal, "questions=1,234")
        show(1, {"reward/mean": 0.5, "kl/mean": 0.25, "dev/score": 0.75})
        wait_for(terminal, "reward=0.500")
        assert "dev=0.750" in terminal.getvalue() and "1/4" in terminal.getvalue()


def test_nothing_moves_where_there_is_no_terminal_or_under_quiet(monkeypatch):
    terminal = to_terminal(monkeypatch)
    monkeypatch.setattr(logging.getLogger("prewrite"), "level", logging.WARNING)
    with phase_line("loading"), training_bar(2):
        time.sleep(0.05)
    assert terminal.getvalue() == ""
    monkeypatch.setattr(logging.getLogger("prewrite"), "level", logging.NOTSET)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with phase_line("loading"), training_bar(2):
        time.sleep(0.05)
    assert sys.stderr.getvalue() == ""
