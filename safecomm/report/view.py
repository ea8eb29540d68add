"""Serves the report of a run in a browser, while its sweep runs or later."""

import hmac
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from importlib.resources import files

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from safecomm.errors import SafecommError, UsageError
from safecomm.report.live import LiveReport
from safecomm.storage.names import REPORT_ANSWERS

SHELL_POLICY = "default-src 'self'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"
SCRIPT = "text/javascript"


def view_app(report: LiveReport, token: str) -> Starlette:
    """Returns the web application: the page around the report, the report, and how far the sweep is.

    Args:
        report: the report.
        token: what a browser must know, because others may use this machine, too, and answers can be harmful. It sends
            the token once in the address, and then a cookie.
    """
    routes = [
        Route("/", lambda _: HTMLResponse(_file("view.html"), headers={"Content-Security-Policy": SHELL_POLICY})),
        Route("/view.js", lambda _: Response(_file("view.js"), media_type=SCRIPT)),
        Route("/status", _answering(lambda: JSONResponse(asdict(report.status())))),
        Route("/report", _answering(lambda: HTMLResponse(report.page()))),
        Route(f"/{REPORT_ANSWERS}", _answering(lambda: Response(report.answers(), media_type=SCRIPT))),
    ]
    return Starlette(routes=routes, middleware=[Middleware(BaseHTTPMiddleware, dispatch=_guard(token))])


def _answering(make: Callable[[], Response]) -> Callable[[Request], Awaitable[Response]]:
    """Returns an endpoint that makes its response in a thread; a run that can't be read is one message."""

    async def endpoint(_: Request) -> Response:
        try:
            response = await run_in_threadpool(make)
        except (SafecommError, OSError) as error:
            response = PlainTextResponse(str(error), status_code=500)
        response.headers.update({"Cache-Control": "no-store", "Content-Security-Policy": "frame-ancestors 'self'"})
        return response

    return endpoint


def _guard(token: str) -> Callable[[Request, Callable[[Request], Awaitable[Response]]], Awaitable[Response]]:
    # Browsers send a cookie to all ports of a host, so it neither is the token nor has another view's name.
    value = hmac.new(token.encode(), b"safecomm view", "sha256").hexdigest()
    name = f"safecomm-view-{value[:8]}"

    async def guard(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.query_params.get("token")
        if given is not None and _same(given, token):
            response: Response = RedirectResponse(request.url.path)  # the address bar no longer shows it
            response.set_cookie(name, value, httponly=True, samesite="lax")
            return response
        if not _same(request.cookies.get(name, ""), value):
            return PlainTextResponse("Open the address that `safecomm view` printed; it has a token.", status_code=403)
        return await call(request)

    return guard


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _file(name: str) -> str:
    return (files("safecomm.report") / name).read_text(encoding="utf-8")


def listening(host: str, port: int) -> socket.socket:
    """Returns a socket that listens.

    Raises:
        UsageError: if the address can't be used, e.g. because another program has the port.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UsageError(f"--host {host} --port {port}: {_reason(error)}; choose another --port") from error


def _reason(error: OSError) -> str:
    """Returns the system's words without the address, which Python may add to them."""
    code = error.errno or 0
    return os.strerror(code) if code > 0 else str(error.strerror)


def serve_view(app: Starlette, listener: socket.socket) -> None:
    """Serves the application on a socket until Ctrl-C."""
    with suppress(KeyboardInterrupt):  # is how it ends
        uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off")).run(sockets=[listener])
