// What the programs' command lines have in common.  CLI11 does the work; it is compiled once, here,
// as it takes half a minute.
#ifndef MOUNT_TOOLS_COMMAND_LINE_H_
#define MOUNT_TOOLS_COMMAND_LINE_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace pkramfs {

// A name may be anything: what would change what a terminal shows is escaped.
std::string Printable(const std::string& text);

// Describe what may be given, then Parse.  Names are CLI11's: "region" is the next word,
// "-f,--force" an option.  A variable that is not given keeps its value, which the help shows; it
// must live until Parse has returned.
class CommandLine {
 public:
  CommandLine(const std::string& program, const std::string& what, const std::string& footer = "");
  ~CommandLine();

  // T: std::string, std::vector<std::string> (the option may be repeated), int, uint32_t, uint64_t,
  // double.
  template <typename T>
  void Option(const std::string& names, T* value, const std::string& help,
              const std::string& kind = "");
  void Required(const std::string& name, std::string* value, const std::string& help);
  // All the words that are left.
  enum class Least { kNone, kOne };
  void Rest(const std::string& name, std::vector<std::string>* values, const std::string& help,
            Least least = Least::kOne);
  void Flag(const std::string& names, bool* value, const std::string& help);
  // One whose value may be missing, and whose meaning is somebody else's.
  void Ignored(const std::string& name, const std::string& help);

  // One of several commands, of which one must be given.
  CommandLine& Command(const std::string& name, const std::string& what);
  bool given() const;

  // Adds --help and --version.  The status to end with, because one of these was asked for or
  // the command line is wrong (`wrong_usage`), which is said; or nothing.
  std::optional<int> Parse(int argc, char** argv, int wrong_usage = 2);

 private:
  explicit CommandLine(CLI::App* command);

  const std::unique_ptr<CLI::App> owned_;  // nothing, of a command
  CLI::App* const app_;
  std::vector<std::unique_ptr<CommandLine>> commands_;
};

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_COMMAND_LINE_H_
