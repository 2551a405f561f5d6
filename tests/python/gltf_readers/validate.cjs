// Prints the report of the Khronos validator for each of the files named: a list, as JSON.
const fs = require("fs");
const validator = require("gltf-validator");

Promise.all(
  process.argv.slice(2).map((path) => validator.validateBytes(new Uint8Array(fs.readFileSync(path)))),
).then((reports) => console.log(JSON.stringify(reports)));
