"""A person at Open WebUI: each line of standard input is a step as a JSON list, its name and what
it takes; each line of standard output is what came of it, as JSON."""

import json
import os
import sys

from playwright.sync_api import sync_playwright

PATIENCE = 60_000  # milliseconds
# Sandboxes and graphics that a machine for tests may not have.
BARE = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
TAGGED = """async name => {
    const headers = {authorization: `Bearer ${localStorage.token}`};
    const answer = await fetch("/api/v1/chats/all/tags", {headers});
    return (await answer.json()).some(tag => tag.name === name);
}"""


class Person:
    def __init__(self, page):
        self.page = page

    def say(self, text):
        self.page.locator("#chat-input").click()
        self.page.keyboard.type(text)
        self.page.locator("#send-message-button").click()

    def attach(self, path):
        self.page.get_by_role("button", name="More", exact=True).click()
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_text("Upload Files").click()
        chooser.value.set_files(path)

    def read(self, text):
        """Until the text is to be seen."""
        self.page.get_by_text(text).last.wait_for()

    def unfold(self, text):
        """Until the thinking, unfolded, shows the text."""
        thinking = self.page.get_by_role("button", name="Thinking").or_(
            self.page.get_by_role("button", name="Thought")
        )
        thinking.last.click()
        self.read(text)

    def stop(self):
        button = self.page.get_by_role("button", name="Stop", exact=True)
        button.click()
        button.wait_for(state="hidden")

    def find_tag(self, name):
        """Until a chat has that tag."""
        self.page.wait_for_function(TAGGED, arg=name, polling=200)


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=os.environ["BROWSER"], args=BARE)
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    person = Person(page)
    page.goto(os.environ["WEBUI_URL"])
    # What is new in this version is told first.
    page.get_by_role("button", name="Okay, Let's Go!").click()
    for line in sys.stdin:
        step, *given = json.loads(line)
        try:
            print(json.dumps(getattr(person, step)(*given)), flush=True)
        except Exception:
            print(page.inner_text("body"), file=sys.stderr)
            raise
    browser.close()
