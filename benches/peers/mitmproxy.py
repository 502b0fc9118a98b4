"""The least that mitmproxy needs to swap one header of one host, for tollgate's benchmark."""

from mitmproxy import ctx

FIELD = "x-api-key"


class Swap:
    def load(self, loader):
        loader.add_option("swap_host", str, "", "The host that gets the secret.")
        loader.add_option("swap_secret_file", str, "", "Where the secret stands.")

    def configure(self, updated):
        if "swap_secret_file" in updated and ctx.options.swap_secret_file:
            with open(ctx.options.swap_secret_file, encoding="ascii") as file:
                self.secret = file.read().strip()

    def server_connect(self, data):
        """Every name leads to this machine."""
        data.server.address = ("127.0.0.1", data.server.address[1])

    def requestheaders(self, flow):
        headers = flow.request.headers
        if flow.client_conn.sni == ctx.options.swap_host and FIELD in headers:
            headers[FIELD] = self.secret
        # Otherwise bodies are held in memory until they are complete.
        flow.request.stream = True

    def responseheaders(self, flow):
        flow.response.stream = True


addons = [Swap()]
