// Starts `convdsl lsp`, and hands what it says to the editor.
"use strict";

const vscode = require("vscode");
const { LanguageClient, TransportKind } = require("vscode-languageclient/node");

let client;

function server() {
  const [command, ...first] = vscode.workspace.getConfiguration("convdsl").get("command");
  return { command, args: [...first, "lsp"], transport: TransportKind.stdio };
}

async function start() {
  const options = {
    documentSelector: [{ language: "convdsl" }],
    outputChannelName: "convdsl",
  };
  client = new LanguageClient("convdsl", "convdsl", server(), options);
  try {
    await client.start();
  } catch {
    const told = 'convdsl could not be started. Install it with: pip install "convdsl[lsp]"';
    const choice = await vscode.window.showErrorMessage(told, "Settings");
    if (choice) {
      vscode.commands.executeCommand("workbench.action.openSettings", "convdsl.command");
    }
  }
}

async function stop() {
  const old = client;
  client = undefined;
  if (old) {
    await old.dispose().catch(() => undefined);
  }
}

async function restart() {
  await stop();
  await start();
}

exports.activate = async (context) => {
  context.subscriptions.push(
    vscode.commands.registerCommand("convdsl.restart", restart),
    vscode.workspace.onDidChangeConfiguration((event) =>
      event.affectsConfiguration("convdsl.command") ? restart() : undefined
    )
  );
  await start();
};

exports.deactivate = stop;
