// The programs' command lines.  CLI11 does the work.  It is compiled here only, because that takes
// half a minute.
#ifndef MOUNT_TOOLS_COMMAND_LINE_H_
#define MOUNT_TOOLS_COMMAND_LINE_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace pkramfs {

// Escapes control characters and bytes that are no UTF-8, so that a name in a message cannot change
// what a terminal shows.
std::string Printable(std::string_view text);

// Usage: describe the arguments, then call Parse.  Names are CLI11's: "region" is the next word,
// "-f,--force" an option.  An argument that is not given leaves its variable as it is; the help
// shows that value.  The variable must live until Parse has returned.
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
  // Takes all words that are left.
  enum class Least { kNone, kOne };
  void Rest(const std::string& name, std::vector<std::string>* values, const std::string& help,
            Least least = Least::kOne);
  void Flag(const std::string& names, bool* value, const std::string& help);
  // An option that is accepted and ignored.  Its value may be missing.
  void Ignored(const std::string& name, const std::string& help);

  // Adds a command.  One of the commands must be given.
  CommandLine& Command(const std::string& name, const std::string& what);
  bool given() const;

  // Adds --help and --version, and parses.  Returns the exit status if the program is to end:
  // because one of these was given, or because the command line is wrong (`wrong_usage`), which it
  // says.
  std::optional<int> Parse(int argc, char** argv, int wrong_usage = 2);

 private:
  explicit CommandLine(CLI::App* command);

  const std::unique_ptr<CLI::App> owned_;  // nothing, of a command
  CLI::App* const app_;
  std::vector<std::unique_ptr<CommandLine>> commands_;
};

}  // namespace pkramfs

#endif  // MOUNT_TOOLS_COMMAND_LINE_H_
