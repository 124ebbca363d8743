// pkramctl import and export.
#ifndef MOUNT_CTL_BULK_H_
#define MOUNT_CTL_BULK_H_

#include "mount/tools/export.h"
#include "mount/tools/import.h"

namespace pkramfs {

// Each prints what it did, and returns the exit status.
// With `dry_run`: what the import would take, and nothing is done.
int RunImport(const ImportOptions& options, bool dry_run, bool as_json);
// An archive goes to standard output.
int RunExport(ExportOptions options);

}  // namespace pkramfs

#endif  // MOUNT_CTL_BULK_H_
