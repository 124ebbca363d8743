// pkramctl's import and export, as they are typed.
#ifndef MOUNT_TOOLS_BULK_COMMANDS_H_
#define MOUNT_TOOLS_BULK_COMMANDS_H_

#include "absl/status/status.h"
#include "mount/tools/export.h"
#include "mount/tools/import.h"

namespace pkramfs {

// Prints what was done, or is to be done (`dry_run`), and how far it is.
absl::Status RunImport(const ImportOptions& options, bool dry_run, bool as_json);
// The archive goes to standard output.
absl::Status RunExport(ExportOptions options);

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_BULK_COMMANDS_H_
